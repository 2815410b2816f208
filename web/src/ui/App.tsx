/** The page. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as app from "../state/app";
import * as engine from "../state/engine";
import { t } from "../state/i18n";
import { Banners, OptionsBar, Strip, Toasts, ToolRail, TopBar } from "./Bars";
import { Dialogs } from "./Dialogs";
import { add, dropped, pasted, pick, pickFolder } from "./files";
import { Icon } from "./icons";
import { onKey } from "./keys";
import { Objects, Palette } from "./Objects";
import { Stage } from "./stage/Stage";
import { VideoBar } from "./VideoBar";

export function App() {
  const over = useSignal(false);
  useEffect(() => {
    const onPaste = (event: ClipboardEvent): void => {
      const files = event.clipboardData ? pasted(event.clipboardData) : [];
      if (files.length > 0) add(files);
    };
    document.addEventListener("keydown", onKey);
    document.addEventListener("paste", onPaste);
    return () => {
      document.removeEventListener("keydown", onKey);
      document.removeEventListener("paste", onPaste);
    };
  }, []);
  const doc = app.current.value;
  const video = app.activeVideo.value;
  return (
    <div
      class={`app ${doc ? "" : "first"}`}
      onDragOver={(event) => {
        if (!event.dataTransfer?.types.includes("Files")) return;
        event.preventDefault();
        over.value = true;
      }}
      onDragLeave={(event) => {
        if (!event.relatedTarget) over.value = false;
      }}
      onDrop={(event) => {
        event.preventDefault();
        over.value = false;
        if (event.dataTransfer) void dropped(event.dataTransfer).then(add);
      }}
    >
      <TopBar />
      {doc && <ToolRail />}
      <main>
        <Banners />
        {doc ? (
          <>
            <OptionsBar />
            <Stage doc={doc} />
            {video && <VideoBar video={video} />}
          </>
        ) : (
          app.restored.value && !app.activeItem.value && <Welcome />
        )}
      </main>
      {doc && <Objects />}
      {app.items.value.length > 0 && <Strip />}
      <Dialogs />
      <Toasts />
      <Palette />
      {over.value && <div class="drop-here">{t("dropNow")}</div>}
    </div>
  );
}

function Welcome() {
  const samples = engine.info.value?.samples ?? [];
  return (
    <div class="welcome">
      <h2>{t("welcome")}</h2>
      <p>{t("welcomeText")}</p>
      <div class="dropzone">
        <Icon name="image" />
        <p>{t("drop")}</p>
        <div class="group">
          <button type="button" class="primary" onClick={() => void pick()} data-testid="pick">{t("pick")}</button>
          <button type="button" onClick={() => void pickFolder()}>{t("pickFolder")}</button>
        </div>
      </div>
      {samples.length > 0 && (
        <>
          <h3>{t("samples")}</h3>
          <ul class="samples">
            {samples.map((s) => (
              <li key={s.id}>
                <button type="button" onClick={() => void app.addSample(s.id)} data-testid={`sample-${s.id}`}>
                  <img src={`.${s.url}`} alt="" width={s.width} height={s.height} loading="lazy" />
                  <span>{s.name}</span>
                </button>
              </li>
            ))}
          </ul>
        </>
      )}
      <p class="hint">{t("privacy")}</p>
    </div>
  );
}
