"""Worker processes on one port, and the supervisor over them (docs/decisions/0016).

    supervisor ── binds the port; starts, watches and restarts; holds no key, opens no store
        │  a socket pair each: what to do goes down, what is in force comes up (`link`)
        ├── worker 1 ── reads keys, store and policy, and is a proxy as `--workers 1` is
        └── worker 2 ── …

A worker is a fresh process, not a fork of the supervisor: its memory is laid out anew, so nobody
learns by crashing one how the next one lies. It dies with the supervisor.
"""
