INSERT INTO migration_step
    (scope, number, name, kind, checksum, state, run, started_us, finished_us, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (scope, number) DO UPDATE SET
    name = excluded.name,
    kind = excluded.kind,
    checksum = excluded.checksum,
    state = excluded.state,
    run = excluded.run,
    started_us = excluded.started_us,
    finished_us = excluded.finished_us,
    detail = excluded.detail;
