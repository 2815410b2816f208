"""What a user holds: models, scenes, results, sessions and pictures of them."""
