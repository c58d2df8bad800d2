// Fetches the next page of results when the button is pressed, in the same request form as the engine's own page.
"use strict";

const app = document.querySelector('[id^="ImagesApp-"][data-state]');
const button = document.querySelector(".FetchListButton-Button");
const notice = document.querySelector(".FetchListButton-Error");
let next = JSON.parse(app.dataset.state).initialState?.serpList?.navi?.next;

function nextAddress() {
  const address = new URL(next, location.href);
  address.searchParams.set("format", "json");
  address.searchParams.set("request", JSON.stringify({ blocks: [
    { block: "extra-content", params: {}, version: 2 },
    { block: { block: "i-react-ajax-adapter:ajax" }, params: { type: "ImagesApp", ajaxKey: "serpList/fetch" }, version: 2 },
  ] }));
  if (address.searchParams.has("cbir_id")) address.searchParams.set("rpt", "imagelike");
  address.searchParams.set("serpListType", "horizontal");
  return address;
}

function tile(record) {
  const box = document.createElement("div");
  box.className = "SerpItem";
  box.dataset.id = record.id;
  const thumb = document.createElement("div");
  thumb.className = "SerpItem-Thumb";
  const link = Object.assign(document.createElement("a"), { className: "Link", href: record.url });
  const image = Object.assign(document.createElement("img"), { src: record.image, alt: record.alt ?? "", className: "ImagesContentImage-Image" });
  const title = Object.assign(document.createElement("div"), { className: "SerpItem-Title", textContent: record.alt ?? "" });
  const site = Object.assign(document.createElement("div"), { className: "SerpItem-Site" });
  site.textContent = `${record.snippet?.domain ?? ""} · ${record.origWidth}×${record.origHeight}`;
  link.append(image);
  thumb.append(link);
  box.append(thumb, title, site);
  return box;
}

async function showMore() {
  button.disabled = true;
  notice.hidden = true;
  try {
    const answer = await fetch(nextAddress(), { headers: { "X-Requested-With": "XMLHttpRequest" } });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const blocks = (await answer.json()).blocks;
    const list = blocks.find((block) => block.params?.adapterData?.serpList).params.adapterData.serpList;
    document.querySelector(".SerpList").append(...list.items.keys.map((key) => tile(list.items.entities[key])));
    next = list.navi.next;
    if (!next) button.closest(".FetchListButton").hidden = true;
  } catch (error) {
    notice.hidden = false;
  }
  button.disabled = false;
}

button?.addEventListener("click", showMore);
