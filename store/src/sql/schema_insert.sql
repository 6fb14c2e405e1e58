INSERT INTO store_schema (number, kind) VALUES ($1, $2);
