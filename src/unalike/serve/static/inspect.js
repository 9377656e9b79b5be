// The page Inspect: sends pictures, shows the answers that the server renders, with heat maps on demand.
import { currentAnswer, moveKeys, showAnswer, startActs } from "./answer_list.js";
import { call } from "./api.js";
import { startCamera } from "./camera.js";
import { startDropZone } from "./drop_zone.js";
import { judge } from "./feedback.js";
import { showLayer } from "./layers.js";
import { bindKeys } from "./keys.js";
import { keepBatchInAddress, startQueue } from "./picture_queue.js";

const { inspector, batch } = document.getElementById("inspect").dataset;

async function send(file) {
  const form = new FormData();
  form.append("image", file, file.name || "picture");
  const { answers } = await call("POST", `/v1/inspectors/${encodeURIComponent(inspector)}/inspect`, { form, requestId: batch });
  await show(answers[0].id);
}

function show(id) {
  return showAnswer(`/inspect/answer?${new URLSearchParams({ inspector, id })}`, id);
}

const addPictures = startQueue(send, { verb: "is being inspected", onStart: () => keepBatchInAddress({ inspector, batch }) });
startDropZone(document.getElementById("drop"), addPictures);
const openCamera = startCamera((picture) => addPictures([picture]));

const act = startActs({
  confirmed: (answer) => judge(answer, "confirmed", "Noted: right.", show),
  wrong: (answer) => judge(answer, "wrong", "Noted: wrong.", show),
  heat: (answer) => showLayer(answer.querySelector("[data-act=heat]"), answer.querySelector(".layer")),
});
bindKeys({
  y: () => act("confirmed", currentAnswer()),
  w: () => act("wrong", currentAnswer()),
  h: () => act("heat", currentAnswer()),
  o: () => document.getElementById("files").click(),
  c: () => openCamera(),
  ...moveKeys,
});
