() => {
  // Text fields draw at Enter by themselves; here numbers and sliders do, too.
  const narrow = window.matchMedia("(max-width: 40rem)");
  const show = (element) => {
    // On a phone the pictures are below the controls.
    if (narrow.matches) element.closest(".workbench")?.querySelector(".output")?.scrollIntoView();
  };
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    if (event.target.matches(".controls input[type=range], .controls input[type=number]")) {
      event.target.closest(".controls").querySelector("button.primary").click();
    } else if (event.target.matches(".controls input[type=text]:not([role])")) {
      show(event.target);
    }
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".controls button.lg");
    if (button) show(button);
  });
}
