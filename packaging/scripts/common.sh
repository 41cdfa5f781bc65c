# What the maintainer scripts of both kinds of packages share.
set -e

make_user() {
    if command -v systemd-sysusers >/dev/null 2>&1; then
        systemd-sysusers --replace=/usr/lib/sysusers.d/corenvr.conf - <<'SYSUSERS'
@SYSUSERS@
SYSUSERS
    elif ! getent passwd corenvr >/dev/null; then
        useradd --system --user-group --home-dir /var/lib/corenvr --no-create-home --shell /usr/sbin/nologin \
            --comment "corenvr network video recorder" corenvr
    fi
}

make_directories() {
    if command -v systemd-tmpfiles >/dev/null 2>&1; then
        systemd-tmpfiles --create corenvr.conf
    else
        install -d -m 0750 -o root -g corenvr /etc/corenvr
        install -d -m 0750 -o corenvr -g corenvr /var/lib/corenvr /var/lib/corenvr/recordings
        chown root:corenvr /etc/corenvr/corenvr.toml
        chmod 0640 /etc/corenvr/corenvr.toml
    fi
}

# The sysctl file counts from the next start of the machine on; until then only what is smaller is raised.
raise_receive_buffer() {
    wanted=$(sed -n 's/^net.core.rmem_max *= *//p' /usr/lib/sysctl.d/10-corenvr.conf)
    now=$(cat /proc/sys/net/core/rmem_max 2>/dev/null || echo "$wanted")
    if [ "$now" -lt "$wanted" ]; then
        { echo "$wanted" >/proc/sys/net/core/rmem_max; } 2>/dev/null || true
    fi
}

# The old program goes on recording rather than a new one failing on a configuration that it does not understand.
restart_if_running() {
    [ -d /run/systemd/system ] || return 0
    systemctl --quiet is-active corenvr.service || return 0
    if /usr/bin/corenvr config check /etc/corenvr/corenvr.toml; then
        echo "corenvr: finishing the open recordings and starting the new version"
        systemctl try-restart corenvr.service || echo "corenvr: the restart has failed: journalctl -u corenvr" >&2
    else
        echo "corenvr: the configuration has mistakes in the eyes of the new version; the old one goes on recording." >&2
        echo "corenvr: correct /etc/corenvr/corenvr.toml, then: systemctl restart corenvr" >&2
    fi
}

say_what_next() {
    cat <<'NEXT'
corenvr is installed. It is not started: there is no camera yet, and it would open ports.
  sudo systemctl enable --now corenvr          starts it, now and with the machine
  sudo cat /var/lib/corenvr/admin-password     the password of the account admin, made at the first start
  sudo corenvr camera add NAME 'rtsp://USER:PASSWORD@ADDRESS/PATH'
  sudo corenvr doctor                          what this machine lacks, with the remedy for each
The firewall was not touched. To let players and browsers in:
  sudo ufw allow corenvr                       Ubuntu, Debian
  sudo firewall-cmd --permanent --add-service=corenvr && sudo firewall-cmd --reload      EL, CentOS
Configuration: /etc/corenvr/corenvr.toml. Recordings: /var/lib/corenvr/recordings. Manual: man corenvr
NEXT
}

warn_of_kernel() {
    release=$(uname -r)
    major=${release%%.*}
    rest=${release#*.}
    minor=${rest%%[!0-9]*}
    disabled=$(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null || echo 0)
    if [ "$major" -lt 5 ] || { [ "$major" -eq 5 ] && [ "${minor:-0}" -lt 8 ]; }; then
        echo "WARNING: this kernel ($release) is too old: corenvr needs Linux 5.8 or later and will not start."
        echo "  CentOS 7 and CentOS Stream 8 (EL 7 and 8) have none that will do. Ubuntu 20.04 has one:"
        echo "  sudo apt install linux-generic-hwe-20.04, then restart the machine."
    elif [ "$disabled" != 0 ]; then
        [ "$disabled" = 1 ] && [ "$(cat /proc/sys/kernel/io_uring_group)" = "$(getent group corenvr | cut -d: -f3)" ] && return 0
        echo "WARNING: io_uring is switched off on this machine (kernel.io_uring_disabled = $disabled): corenvr will not start before"
        echo "  sudo corenvr allow-io-uring"
    fi
}
