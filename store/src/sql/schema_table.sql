CREATE TABLE IF NOT EXISTS store_schema (
    number bigint PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('expand', 'contract'))
);
