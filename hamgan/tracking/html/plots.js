// Draws the panels of a report: lines over thousand images, whose values stand in the legend while one points at them.
const colours = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f"];
const {panels, marks} = JSON.parse(document.getElementById("panels").textContent);
const number = value => value == null ? "–" : String(Number(value.toPrecision(4)));
// The last value stands in the legend while nobody points at another one.
const shown = (plot, value, line, index) => number(index == null ? plot.data[line].findLast(v => v != null) : value);

function drawMarks(plot) { // dashed: where the run went back
  const {ctx, bbox} = plot;
  ctx.save();
  ctx.setLineDash([6, 4]);
  marks.forEach(kimg => {
    const x = plot.valToPos(kimg, "x", true);
    ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
  });
  ctx.restore();
}

document.querySelectorAll(".plot").forEach((place, index) => {
  const panel = panels[index], few = panel.rows[0].length < 30;
  const series = panel.names.map((name, line) => ({
    label: name, stroke: colours[line % colours.length], width: 1.5, spanGaps: true,
    points: {show: few}, value: shown,
  }));
  const size = () => ({width: place.clientWidth, height: 240});
  const plot = new uPlot({
    ...size(), scales: {x: {time: false}}, cursor: {sync: {key: "report"}, drag: {x: true, y: false}},
    axes: [{label: "thousand images", labelSize: 20, size: 40}, {size: 60, values: (_, ticks) => ticks.map(number)}],
    series: [{label: "thousand images", value: shown}, ...series],
    hooks: {draw: [drawMarks]},
  }, panel.rows, place);
  new ResizeObserver(() => plot.setSize(size())).observe(place);
});
