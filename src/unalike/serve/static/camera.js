// The camera: a stream in a dialog and a button that takes a picture; where a page may not have the stream, the phone's own camera.

import { say } from "./api.js";

const QUALITY = 0.95;

/**
 * Prepare the button of the camera.
 * @param {(picture: File) => void} give takes each picture
 * @returns {() => void} opens the camera
 */
export function startCamera(give) {
  const button = document.getElementById("camera");
  const field = document.getElementById("capture");
  // Browsers give no stream to pages that came over plain http, but from this machine.
  const hasStream = Boolean(navigator.mediaDevices?.getUserMedia);
  button.hidden = !hasStream;
  field.hidden = hasStream;
  document.getElementById("capture-label").hidden = hasStream;
  if (!hasStream) return () => field.click();
  const open = () => openStream(() => {
    button.hidden = true;
    field.hidden = false;
    document.getElementById("capture-label").hidden = false;
  });
  button.addEventListener("click", open);
  document.getElementById("camera-close").addEventListener("click", () => document.getElementById("camera-dialog").close());
  document.getElementById("shoot").addEventListener("click", () => shoot(give));
  document.getElementById("camera-dialog").addEventListener("close", stop);
  return open;
}

async function openStream(fallBack) {
  const video = document.getElementById("video");
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
  } catch (error) {
    say(`The camera cannot be used (${error.name}): allow it in the browser, or take a picture with the phone's camera.`, { isBad: true });
    fallBack();
    return;
  }
  document.getElementById("camera-dialog").showModal();
}

function shoot(give) {
  const video = document.getElementById("video");
  if (!video.videoWidth) return;
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => give(new File([blob], "camera.jpg", { type: "image/jpeg" })), "image/jpeg", QUALITY);
}

function stop() {
  const video = document.getElementById("video");
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}
