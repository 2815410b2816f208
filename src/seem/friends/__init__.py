"""Ways to and from other people's software: pipelines as transformers has them, napari, FiftyOne, supervision, speech.

Each file needs the package that it is about, and imports it when it is used.
"""
