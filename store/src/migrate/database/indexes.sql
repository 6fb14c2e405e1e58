SELECT index.relname::text, pg_index.indisvalid
FROM pg_index
JOIN pg_class AS index ON index.oid = pg_index.indexrelid
WHERE index.relname::text = ANY ($1)
ORDER BY 1;
