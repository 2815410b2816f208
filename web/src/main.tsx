import { effect } from "@preact/signals";
import { render } from "preact";
import * as api from "./api";
import { restore } from "./state/app";
import * as engine from "./state/engine";
import { t } from "./state/i18n";
import { failed, toast } from "./state/toasts";
import { App } from "./ui/App";
import "./style.css";

async function begin(): Promise<void> {
  engine.info.value = await api.info();
  void engine.startDecoder();
  await restore();
}

let wasOnline = true;
effect(() => {
  if (api.online.value && !wasOnline) toast(t("backOnline"));
  wasOnline = api.online.value;
});

const root = document.getElementById("app");
if (root) render(<App />, root);
begin().catch(failed);
