/** A clip's time line: play, scrub, track, and where something was marked. */

import { t } from "../state/i18n";
import { failed, toast } from "../state/toasts";
import type { Video } from "../state/video";
import { IconButton } from "./common";

export function VideoBar({ video }: { video: Video }) {
  const { frames } = video;
  const at = video.frame.value;
  const shown = video.shown.value + 1;
  const show = (n: number): void => void video.show(n).catch(failed);
  const given = video.given.value;
  const done = video.tracking.value;
  const next = given.find((n) => n > at) ?? given[0];
  const track = (): void => {
    if (given.length === 0) return toast(t("markFirst"));
    video.track().then(() => toast(t("tracked")), failed);
  };
  return (
    <section class="video-bar" aria-label={t("video")}>
      <div class="group">
        <IconButton icon="left" label={t("keyFrames")} shortcut="," onClick={() => show(at - 1)} disabled={at === 0} />
        <IconButton icon={video.playing.value ? "pause" : "play"} label={t(video.playing.value ? "pause" : "play")} onClick={() => void video.play().catch(failed)} testid="play" />
        <IconButton icon="right" label={t("keyFrames")} shortcut="." onClick={() => show(at + 1)} disabled={at >= frames - 1} />
      </div>
      <div class="timeline">
        <div class="marks" aria-hidden="true">
          <Spans video={video} />
          {given.map((n) => (
            <i key={n} style={{ left: `${(n / Math.max(1, frames - 1)) * 100}%` }} />
          ))}
        </div>
        <input
          type="range"
          min={0}
          max={frames - 1}
          value={at}
          aria-label={t("frame")}
          aria-valuetext={t("frameOf", { n: at + 1, all: frames })}
          onInput={(event) => show(Number(event.currentTarget.value))}
          data-testid="frame"
        />
      </div>
      <output class="count" data-testid="frame-of">{t("frameOf", { n: shown, all: frames })}</output>
      <IconButton icon="next" label={t("nextGiven")} onClick={() => next !== undefined && show(next)} disabled={next === undefined} />
      {done === null ? (
        <button type="button" class="primary" onClick={track} title={t("trackHint")} data-testid="track">{t("track")}</button>
      ) : (
        <button type="button" onClick={() => video.stop()} data-testid="track-stop">
          {t("stop")} <span class="visually-hidden">{t("tracking", { n: done, all: frames })}</span>
          <progress aria-label={t("track")} max={frames} value={done} />
        </button>
      )}
    </section>
  );
}

/** Which frames have masks, as bars. */
function Spans({ video }: { video: Video }) {
  const frames = [...video.tracked.value.keys()].sort((a, b) => a - b);
  const spans: [number, number][] = [];
  for (const n of frames) {
    const last = spans.at(-1);
    if (last?.[1] === n - 1) last[1] = n;
    else spans.push([n, n]);
  }
  const share = (n: number): string => `${(n / video.frames) * 100}%`;
  return (
    <>
      {spans.map(([from, to]) => (
        <b key={from} style={{ left: share(from), width: share(to - from + 1) }} />
      ))}
    </>
  );
}

