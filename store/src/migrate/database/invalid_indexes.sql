SELECT index.relname::text
FROM pg_index
JOIN pg_class AS index ON index.oid = pg_index.indexrelid
WHERE NOT pg_index.indisvalid AND index.relname::text = ANY ($1);
