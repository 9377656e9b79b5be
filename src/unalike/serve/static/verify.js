// The page Verify: sends pictures, and shows the answers that the server renders.
import { currentAnswer, moveKeys, showAnswer, startActs } from "./answer_list.js";
import { call } from "./api.js";
import { startCamera } from "./camera.js";
import { startDropZone } from "./drop_zone.js";
import { judge } from "./feedback.js";
import { bindKeys } from "./keys.js";
import { keepBatchInAddress, startQueue } from "./picture_queue.js";

const { assets, batch } = document.getElementById("verify").dataset;
const claimed = document.getElementById("claimed");

async function send(file) {
  const form = new FormData();
  form.append("image", file, file.name || "picture");
  if (claimed.value) form.append("asset", claimed.value);
  const { verdicts } = await call("POST", `/v1/assets/${encodeURIComponent(assets)}/verify`, { form, requestId: batch });
  await show(verdicts[0].id);
}

function show(id) {
  return showAnswer(`/verify/answer?${new URLSearchParams({ assets, id })}`, id);
}

const addPictures = startQueue(send, { verb: "is being verified", onStart: () => keepBatchInAddress({ assets, batch }) });
startDropZone(document.getElementById("drop"), addPictures);
const openCamera = startCamera((picture) => addPictures([picture]));

const act = startActs({
  confirmed: (answer) => judge(answer, "confirmed", "Noted: right.", show),
  wrong: (answer) => judge(answer, "wrong", "Noted: wrong.", show),
});
bindKeys({
  y: () => act("confirmed", currentAnswer()),
  w: () => act("wrong", currentAnswer()),
  o: () => document.getElementById("files").click(),
  c: () => openCamera(),
  ...moveKeys,
});
