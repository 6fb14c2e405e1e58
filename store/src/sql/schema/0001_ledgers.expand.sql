-- The ledgers of rollouts and of migrations. Times are microseconds since 1970 UTC, ids are text.
CREATE TABLE rollout_entry (
    cluster text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    id text NOT NULL,
    rollout text NOT NULL,
    state text NOT NULL,
    body text NOT NULL,
    at_us bigint NOT NULL,
    PRIMARY KEY (cluster, version),
    UNIQUE (cluster, id)
);

CREATE TABLE migration_step (
    scope text NOT NULL,
    number bigint NOT NULL CHECK (number > 0),
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('expand', 'contract')),
    checksum text NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'applied', 'failed')),
    run text NOT NULL,
    started_us bigint NOT NULL,
    finished_us bigint,
    detail text NOT NULL,
    PRIMARY KEY (scope, number)
);
