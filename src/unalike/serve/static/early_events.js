// What is clicked, sent or chosen before the page's scripts have run is done once they have. Without this a button does nothing, and a form
// is sent as its address by the browser itself: what was entered is lost, and a secret stands in the history and in logs.
(() => {
  const kept = [];
  const replays = {
    click: (event) => {
      const button = event.target.closest("button");
      return button && (() => button.click());
    },
    submit: (event) => {
      const { target, submitter } = event;
      return () => target.requestSubmit(submitter);
    },
    change: (event) => {
      const { target } = event;
      return () => target.dispatchEvent(new Event("change", { bubbles: true }));
    },
  };

  function keep(event) {
    const replay = replays[event.type](event);
    if (!replay) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    kept.push(replay);
  }

  for (const type of Object.keys(replays)) document.addEventListener(type, keep, { capture: true });
  // Scripts that are modules or deferred have run by then.
  document.addEventListener("DOMContentLoaded", () => {
    for (const type of Object.keys(replays)) document.removeEventListener(type, keep, { capture: true });
    for (const replay of kept) replay();
  }, { once: true });
})();
