# New Relic's agent, for the self-check of the collector in tests/backends/newrelic.py.
install_newrelic() {
    local directory=$1
    command -v openssl >/dev/null || apt_install openssl
    "$PYTHON" -m venv "$directory"
    "$directory/bin/pip" install --quiet --disable-pip-version-check newrelic==14.1.0
}
