# shellcheck shell=bash
install_graphite() {
    local directory=$1
    "$PYTHON" -m venv "$directory/venv"
    "$directory/venv/bin/pip" install --quiet carbon whisper
}
