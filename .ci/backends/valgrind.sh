# shellcheck shell=bash
# What counts instructions for benchmarks/.
install_valgrind() {
    apt_install valgrind
    command -v valgrind vgdb
}
