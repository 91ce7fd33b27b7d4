"""What a person or a DAG starts, and the deployment on this machine, reachable from this machine only.

    commands/       every `pharmafed ...` that has subcommands or options of its own
    follow          triggering rounds and following them
    watch           what keeps rounds from going on
    finish          the last step of a round: close it, report it, tell people
    preload         what is imported once, before tasks are forked
    enrol           admits this machine's sites
    ports           which port each listener gets
    sockets         the Unix sockets that the object store leaves in /tmp
    preflight       what would keep a deployment from starting, each with its remedy
    secret_files    files that only their owner may read
    store_security  what closes the object store's inner interfaces: its certificate and `security.toml`
    seaweedfs       the object store: command line, identities, bucket
    airflow         the environment of Airflow's four processes
    services        the list of what the supervisor runs
    processes       finding and stopping every process of a deployment
    state           what the supervisor says about itself
    supervisor      the background process that keeps the services running
    watchdog        which services live and do not work
    logs            keeping the services' logs small
    health          whether each part answers
    local           up, down
    overview        status
    airflow_api     a client of Airflow's REST interface

Everything listens on 127.0.0.1; a deployment across machines is what `docker/` is for. The machine's users and the web
pages in their browsers can reach that address too: the S3 port asks them for a key, Airflow for a token, and the object
store's inner interfaces (master, volume, filer, gRPC) take no one but the store itself.
"""
