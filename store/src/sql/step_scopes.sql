SELECT DISTINCT scope FROM migration_step ORDER BY scope;
