"use strict";
for (const box of document.querySelectorAll("input[data-filter]")) {
  const items = [...document.querySelectorAll(box.dataset.filter)];
  const count = document.getElementById(box.dataset.count);
  const show = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of items) {
      const fits = words.every((word) => item.dataset.text.includes(word));
      item.hidden = !fits;
      shown += fits;
    }
    for (const section of document.querySelectorAll("section")) {
      section.hidden = words.length > 0 && !section.querySelector("li:not([hidden])");
    }
    count.textContent = words.length ? `${shown} of ${items.length}` : "";
  };
  box.addEventListener("input", show);
  const asked = new URLSearchParams(location.search).get("q");
  if (asked) box.value = asked;
  show();
}
for (const block of document.querySelectorAll(".block")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    const text = block.querySelector("pre").textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(block.querySelector("pre"));
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  block.append(button);
}
const topics = document.querySelector("nav details");
if (topics && matchMedia("(max-width: 52rem)").matches) topics.open = false;
