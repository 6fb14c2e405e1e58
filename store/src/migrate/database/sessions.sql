SELECT
    pid,
    application_name,
    usename::text,
    client_addr::text,
    state,
    (extract(epoch FROM backend_start) * 1000000)::bigint
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> ''
ORDER BY backend_start, pid;
