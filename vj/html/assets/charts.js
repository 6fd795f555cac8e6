// Charts drawn by uPlot from the data that each element holds. Shared with the other scripts as `vjCharts`.
var vjCharts = (function () {
  "use strict";
  var drawn = [];

  function color(k) {
    return getComputedStyle(document.documentElement).getPropertyValue("--c" + (k % 7)).trim();
  }
  function ink(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }
  function data(element) {
    return JSON.parse(element.querySelector(":scope > script").textContent);
  }
  function short(v) {
    if (v == null) return "–";
    var size = Math.abs(v);
    if (size !== 0 && size < 1e-3) return v.toExponential(1);
    return size >= 1000 ? Math.round(v).toLocaleString("en") : String(+v.toPrecision(4));
  }
  function axis(more) {
    var line = { stroke: ink("--line"), width: 1 };
    return Object.assign({ stroke: ink("--soft"), grid: line, ticks: line, font: "12px system-ui, sans-serif" }, more);
  }

  // Draw into `plot` what `options(width)` and `values()` say; again when the width or the colours change.
  function draw(plot, options, values) {
    var one = { plot: plot, chart: null };
    one.draw = function () {
      var width = plot.clientWidth;
      if (!width) return;
      if (one.chart) one.chart.destroy();
      one.width = width;
      one.chart = new uPlot(options(width), values(), plot);
    };
    one.draw();
    drawn.push(one);
    new ResizeObserver(function () {
      var width = plot.clientWidth;
      if (width && width !== one.width) {
        one.width = width;
        if (one.chart) one.chart.setSize({ width: width, height: one.chart.height });
        else one.draw();
      }
    }).observe(plot);
    return one;
  }

  // Arrow keys move the cursor of a chart, whose legend then shows the values there.
  function keys(element, one) {
    element.tabIndex = 0;
    element.addEventListener("keydown", function (event) {
      var step = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
      if (!step || !one.chart || event.target !== element) return;
      event.preventDefault();
      var chart = one.chart, n = chart.data[0].length;
      var now = chart.cursor.idx == null ? (step > 0 ? -1 : n) : chart.cursor.idx;
      var idx = Math.max(0, Math.min(n - 1, now + step));
      chart.setCursor({ left: chart.valToPos(chart.data[0][idx], "x"), top: 10 });
    });
  }

  function wholeNumbers(u, values) {
    return values.map(function (v) { return Number.isInteger(v) ? String(v) : ""; });
  }

  // Of a logarithmic axis, the powers of ten alone, and no more of them than can be read.
  function powers(u) {
    var low = Math.ceil(Math.log10(u.scales.y.min) - 1e-9), high = Math.floor(Math.log10(u.scales.y.max) + 1e-9);
    var step = Math.max(1, Math.ceil((high - low) / 5)), found = [];
    for (var k = high; k >= low; k -= step) found.unshift(Math.pow(10, k));
    return found;
  }

  function lineChart(element) {
    var given = data(element), unit = given.unit;
    var one = draw(element.querySelector(".plot"), function (width) {
      return {
        width: width, height: 230,
        cursor: { y: false, drag: { x: false, y: false } },
        // Until the cursor is somewhere, the legend shows the last values.
        hooks: { ready: [function (u) { u.setLegend({ idx: u.data[0].length - 1 }); }] },
        scales: {
          x: { time: false, range: function (u, low, high) { return low === high ? [low - 1, high + 1] : [low, high]; } },
          y: { distr: given.log ? 3 : 1, range: given.log ? undefined : function (u, low, high) {
            var room = (high - low) * 0.08 || Math.abs(high) * 0.05 || 1, span = given.span;
            return [span[0] == null ? low - room : span[0], span[1] == null ? high + room : Math.max(span[1], high)];
          } }
        },
        axes: [
          axis({ label: given.x.label, labelSize: 18, labelFont: "12px system-ui, sans-serif", size: 34, values: wholeNumbers }),
          axis({ size: 70, splits: given.log ? powers : undefined, filter: function (u, splits) { return splits; }, values: function (u, values) {
            return values.map(function (v) { return v == null ? "" : short(v) + unit; });
          } })
        ],
        series: [{ label: given.x.label }].concat(given.series.map(function (s, k) {
          return {
            label: s.label, stroke: color(k), width: 2, points: { size: 6, show: given.x.values.length < 60 },
            dash: k === 2 ? [5, 4] : undefined,
            value: function (u, v) { return v == null ? "–" : short(v) + unit; }
          };
        }))
      };
    }, function () { return [given.x.values].concat(given.series.map(function (s) { return s.values; })); });
    keys(element, one);

  }

  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () {
    drawn.forEach(function (one) { one.draw(); });
  });
  document.querySelectorAll("[data-part=chart]").forEach(lineChart);
  return { draw: draw, keys: keys, data: data, axis: axis, color: color, ink: ink, short: short };
})();
