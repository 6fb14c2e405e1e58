SELECT number, kind FROM store_schema ORDER BY number;
