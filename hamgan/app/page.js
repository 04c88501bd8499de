// Does what Gradio has no means for: it calls a picture of a gallery "Thumbnail 1 of 24", announces no change of a text,
// keeps no state in the address, and reads pictures only by uploads, which this server refuses.
() => {
  const annotate = () => {
    document.querySelectorAll(".status").forEach(status => status.ariaLive = "polite");
    document.querySelectorAll(".pictures button > img").forEach(image => image.parentElement.ariaLabel = image.alt);
  };
  new MutationObserver(annotate).observe(document.body, {childList: true, subtree: true, attributeFilter: ["alt"]});
  document.addEventListener("click", event => { // on a phone the pictures stand above the buttons
    const results = matchMedia("(max-width: 40rem)").matches && event.target.closest(".controls button.md")
      ?.closest(".controls")?.nextElementSibling;
    if (results) results.scrollIntoView();
  });
  // The address says which tab is open with which values, after #, which no browser sends to a server. What it says
  // when the page opens is read here, before Gradio selects the first tab.
  let opened = null;
  try {
    opened = JSON.parse(decodeURIComponent(location.hash.slice(1)));
  } catch { /* none, or one that was cut on its way */ }
  window.stateOf = tab => Array.isArray(opened) && opened[0] === tab ? opened.slice(1) : null;
  window.opensElsewhere = tab => opened !== null && !stateOf(tab);
  window.keepState = (tab, values) => {
    history.replaceState(null, "", "#" + encodeURIComponent(JSON.stringify([tab, ...values])));
    return values;
  };
  // A picture or its square middle, its shorter side as small as is needed, as a data: address; "" where none is chosen.
  window.readPicture = async (side, middle) => {
    const file = document.querySelector("#picture input").files[0];
    if (!file) return "";
    const picture = await createImageBitmap(file).catch(() => null);
    if (!picture) return "data:,";
    const smaller = Math.min(picture.width, picture.height), scale = Math.min(1, side / smaller);
    const width = middle ? smaller : picture.width, height = middle ? smaller : picture.height;
    const canvas = Object.assign(document.createElement("canvas"), {
      width: Math.round(width * scale), height: Math.round(height * scale)});
    canvas.getContext("2d").drawImage(
      picture, (picture.width - width) / 2, (picture.height - height) / 2, width, height, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/jpeg", 0.95);
  };
}
