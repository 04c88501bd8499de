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
  // The address says which tab is open with which values, after #, which no browser sends to a server.
  window.stateOf = tab => {
    try {
      const state = JSON.parse(decodeURIComponent(location.hash.slice(1)));
      return Array.isArray(state) && state[0] === tab ? state.slice(1) : null;
    } catch { return null; }
  };
  window.keepState = (tab, values) => {
    history.replaceState(null, "", "#" + encodeURIComponent(JSON.stringify([tab, ...values])));
    return values;
  };
  // The middle of a picture, as small as the generator needs it, as a data: address; "" where none is chosen.
  window.readPicture = async (side) => {
    const file = document.querySelector("#picture input").files[0];
    if (!file) return "";
    const picture = await createImageBitmap(file).catch(() => null);
    if (!picture) return "data:,";
    const smaller = Math.min(picture.width, picture.height), size = Math.min(smaller, side);
    const canvas = Object.assign(document.createElement("canvas"), {width: size, height: size});
    canvas.getContext("2d").drawImage(
      picture, (picture.width - smaller) / 2, (picture.height - smaller) / 2, smaller, smaller, 0, 0, size, size);
    return canvas.toDataURL("image/jpeg", 0.95);
  };
}
