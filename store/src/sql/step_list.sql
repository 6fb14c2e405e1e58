SELECT scope, number, name, kind, checksum, state, run, started_us, finished_us, detail
FROM migration_step
WHERE scope = $1
ORDER BY number;
