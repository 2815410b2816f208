import { afterEach, describe, expect, it, vi } from "vitest";
import { RemoteDecoder } from "./remote";

const RLE = { size: [2, 2] as [number, number], counts: "04" };

interface Asked {
  path: string;
  body: { objects: { previous: unknown }[]; label: boolean; zoom: boolean } | undefined;
  session: string | null;
}

/** A server that answers from a list; what it was asked is kept. */
function serve(...answers: { status?: number; body?: unknown }[]): Asked[] {
  const asked: Asked[] = [];
  vi.stubGlobal("fetch", (url: string, init: RequestInit) => {
    const text = typeof init.body === "string" ? init.body : undefined;
    asked.push({
      path: url.replace("http://seem.test/app", ""),
      body: text === undefined ? undefined : (JSON.parse(text) as Asked["body"]),
      session: new Headers(init.headers).get("X-Seem-Session"),
    });
    const { status = 200, body = {} } = answers.shift() ?? { status: 500 };
    return Promise.resolve(Response.json(body, { status }));
  });
  return asked;
}

const session = (token: string) => ({ status: 201, body: { session: token, expires_in: 60 } });
const mask = (round: string) => ({
  body: { segments: [{ id: 1, mask_rle: RLE, score: 0.5, label: null, label_score: null, box: [0, 0, 2, 2], area: 4, round }] },
});
const gone = (status: number, code: string) => ({ status, body: { error: { code, message: code } } });
const click = [{ type: "click" as const, x: 1, y: 1 }];

afterEach(() => sessionStorage.clear());

describe("the remote decoder", () => {
  it("opens a session once and gives the next round the server's memory of the last", async () => {
    const asked = serve(session("a"), mask("r1"), mask("r2"));
    const decoder = new RemoteDecoder();
    const [first] = await decoder.decode("sha256:0", [{ id: 1, prompts: click }], ["dog"]);
    expect(first).toMatchObject({ width: 2, height: 2, area: 4, mask: Uint8Array.of(1, 1, 1, 1) });
    await decoder.decode("sha256:0", [{ id: 1, prompts: click, previous: first!.memory }]);
    expect(asked.map((a) => [a.path, a.session])).toEqual([
      ["/v1/sessions", null],
      ["/v1/images/sha256:0/segment", "a"],
      ["/v1/images/sha256:0/segment", "a"],
    ]);
    expect(asked[1]!.body).toMatchObject({ label: true, objects: [{ previous: null }] });
    expect(asked[2]!.body).toMatchObject({ label: false, objects: [{ previous: { round: "r1" } }] });
  });

  it("has the server zoom", async () => {
    const asked = serve(session("a"), mask("r1"), mask("r2"));
    const decoder = new RemoteDecoder();
    await decoder.decode("sha256:0", [{ id: 1, prompts: click }], null, { zoom: true });
    await decoder.decode("sha256:0", [{ id: 1, prompts: click }]);
    expect(asked.slice(1).map((a) => a.body?.zoom)).toEqual([true, false]);
  });

  it("gives the mask where the server has forgotten the round", async () => {
    const asked = serve(session("a"), mask("r1"), gone(409, "round_gone"), mask("r2"));
    const decoder = new RemoteDecoder();
    const [first] = await decoder.decode("sha256:0", [{ id: 1, prompts: click }]);
    await decoder.decode("sha256:0", [{ id: 1, prompts: click, previous: first!.memory }]);
    expect(asked[3]!.body?.objects[0]!.previous).toEqual({ rle: RLE });
  });

  it("opens a new session where the old one ended, and says when the photo has to be sent again", async () => {
    const asked = serve(session("a"), gone(401, "session"), session("b"), gone(404, "not_found"));
    await expect(new RemoteDecoder().decode("sha256:0", [{ id: 1, prompts: click }])).rejects.toMatchObject({ code: "no_scene" });
    expect(asked.map((a) => a.session)).toEqual([null, "a", null, "b"]);
  });

  it("does not know a handle of another decoder", async () => {
    serve(session("a"));
    const object = { id: 1, prompts: click, previous: "stranger" };
    await expect(new RemoteDecoder().decode("sha256:0", [object])).rejects.toMatchObject({ code: "no_memory" });
  });
});
