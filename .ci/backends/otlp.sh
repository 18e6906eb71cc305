# OpenTelemetry's own message definitions, with which tests/backends/otlp.py decodes.
install_otlp() {
    local directory=$1
    "$PYTHON" -m venv "$directory"
    "$directory/bin/pip" install --quiet --disable-pip-version-check opentelemetry-proto==1.45.2
}
