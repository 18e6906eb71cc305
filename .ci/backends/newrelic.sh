# What tests/backends/newrelic.py makes its certificate with; services bring the agent.
install_newrelic() {
    command -v openssl >/dev/null || apt_install openssl
}
