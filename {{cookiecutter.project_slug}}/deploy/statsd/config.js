# {% if cookiecutter.deployment != "none" and cookiecutter.metrics == "statsd" %}
// For compose.yaml. To keep and draw what is received, name Graphite here instead of the console.
{
  backends: ["./backends/console"],
  flushInterval: 10000,
  percentThreshold: [50, 95, 99],
  deleteIdleStats: true
}
# {% endif %}
