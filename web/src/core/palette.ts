/** Colours of objects: distinct in hue and lightness, and the same as in the Python package's pictures. */

export const PALETTE = [
  "#2684ff",
  "#ff7a00",
  "#d633aa",
  "#00b894",
  "#f7c910",
  "#7d54ff",
  "#eb3b3b",
  "#00bcde",
  "#92cd18",
  "#b0622e",
  "#ff82be",
  "#7896fa",
] as const;

export function colourOf(id: number): string {
  return PALETTE[(id - 1 + PALETTE.length) % PALETTE.length] ?? PALETTE[0];
}

export function rgb(colour: string): [number, number, number] {
  const value = Number.parseInt(colour.slice(1), 16);
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}
