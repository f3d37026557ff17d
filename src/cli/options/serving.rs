//! The options of the sockets and of the answers.

use super::{Completion, GLOBAL, Opt, flag, value};

pub(super) const SERVING: &[Opt] = &[
    value(GLOBAL, "port", "PORT").short('p').env("KAPO_PORT").otherwise("6666").says(
        "TCP port to listen on; 0: any free port",
        "kapo logs the chosen port. check, wait, status and logs connect to this port of the \
             local host.",
    ),
    value(GLOBAL, "interface", "ADDR")
        .completes(Completion::Path)
        .short('i')
        .env("KAPO_INTERFACE")
        .otherwise("0.0.0.0")
        .says(
            "address, /path or @name to listen on",
            "An IPv4 or IPv6 address, an absolute path for a socket in the file system, or @name \
             for a socket in the abstract namespace. A Unix socket does not use --port. Host \
             names are rejected, because their address could change between two starts. With \
             none, kapo opens no port.",
        ),
    value(GLOBAL, "bind-failure", "WHAT")
        .completes(Completion::Words(&["exit", "warn"]))
        .env("KAPO_BIND_FAILURE")
        .otherwise("exit")
        .says(
            "if an address is taken: exit or warn",
            "With warn, the job is more important than its port. The reason is one line in the log.",
        ),
    value(GLOBAL, "listen", "ADDRS").completes(Completion::Path).env("KAPO_LISTEN").says(
        "further addresses: HOST:PORT, /path, @name",
        "A list separated by commas; the option may be repeated. HOST and V6 are addresses. \
             kapo listens there in addition to --port and --interface. If the port is 0, the kernel \
             chooses one, which kapo logs.",
    ),
    value(GLOBAL, "run-dir", "DIR").completes(Completion::Path).env("KAPO_RUN_DIR").says(
        "also listen on DIR/NAME.sock",
        "Set the variable once for a host, so that all of its kapos are found in one folder. kapo \
             does not create the folder. If NAME.sock cannot be used, for example because a running \
             kapo has this name, kapo listens on NAME.PID.sock, and PID is the pid of kapo.",
    ),
    value(GLOBAL, "name", "NAME").env("KAPO_NAME").says(
        "name of this kapo (default: of the command)",
        "At most 64 characters of A-Z, a-z, 0-9, dot, underscore and hyphen, with no dot at the \
             beginning. The document, the log and the metric kapo_build_info show it. In the \
             default name, other characters are replaced by underscores.",
    ),
    value(GLOBAL, "socket-mode", "MODE").env("KAPO_SOCKET_MODE").says(
        "permissions of Unix sockets, such as 0660",
        "A process needs write permission to connect. Without this option, the mode is 0660 in \
             --run-dir, and elsewhere 0777 without the bits of the umask.",
    ),
    value(GLOBAL, "socket-group", "GROUP").env("KAPO_SOCKET_GROUP").says(
        "group of Unix sockets in the file system",
        "The name of a group in /etc/group, or a number. Mode and group are set before a client \
             can connect. kapo must run as root or be a member of the group.",
    ),
    flag(GLOBAL, "sidebind").short('b').env("KAPO_SIDEBIND").says(
        "also listen on the next free port above --port",
        "This port is opened on the address of --interface. The document shows it as \
             SidebindPort.",
    ),
    flag(GLOBAL, "socket-activation").short('s').env("KAPO_SOCKET_ACTIVATION").says(
        "serve on inherited sockets (LISTEN_FDS)",
        "kapo then does not listen on --port, and --port and --interface apply only to \
             --sidebind. LISTEN_PID must be kapo's own pid. If LISTEN_FDS is not set, kapo serves \
             a socket on stdin, as inetd passes it.",
    ),
    value(GLOBAL, "max-connections", "N").env("KAPO_MAX_CONNECTIONS").otherwise("512").says(
        "maximum number of open connections",
        "To accept a new connection at the limit, kapo closes another one, so that a health check is \
             always answered: an unfinished request first, then an idle connection, then a \
             waiting client, the oldest of each. The minimum is 1.",
    ),
    value(GLOBAL, "history", "N").env("KAPO_HISTORY").otherwise("5").says(
        "keep the last N ended runs; 0: off",
        "kapo also keeps the first failure of the current crash loop, which often shows the \
             cause. The maximum is 100. The member LastRun of the document does not depend on \
             this option.",
    ),
    flag(GLOBAL, "no-ui").env("KAPO_NO_UI").says(
        "serve no page for browsers",
        "A browser then gets the JSON document at / and /ui, as any other client does.",
    ),
    flag(GLOBAL, "hide-args").env("KAPO_HIDE_ARGS").says(
        "hide the command's arguments everywhere",
        "Use this option if arguments contain secrets. The process list of the system still \
             shows them.",
    ),
];
