/** The polygon that is being drawn; the tool bar shows buttons while there is one. */

import { signal } from "@preact/signals";
import type { Point } from "../../decoder/types";

export const polygon = signal<{ points: Point[]; positive: boolean } | null>(null);
