use super::{RULES, lint};
use crate::Kind;

/// Rule, a bad example, a good one that does the same job or looks the same.
const EXAMPLES: &[(&str, &str, &str)] = &[
    (
        "index-not-concurrent",
        "CREATE UNIQUE INDEX i ON lead (email)",
        "CREATE UNIQUE INDEX CONCURRENTLY i ON lead (email)",
    ),
    (
        "index-not-concurrent",
        "create /* concurrently */ index i on lead (email)",
        "CREATE TABLE a (b int); CREATE INDEX i ON ONLY a (b)",
    ),
    (
        "index-not-concurrent",
        "CREATE TABLE IF NOT EXISTS a (b int); CREATE INDEX i ON a (b)",
        "CREATE TABLE s.a (b int); CREATE INDEX i ON s.a (b)",
    ),
    (
        "index-not-concurrent",
        "CREATE TABLE a (b int); CREATE INDEX i ON other.a (b)",
        "CREATE TABLE \"A b\" (b int); CREATE INDEX i ON \"A b\" (b)",
    ),
    (
        "index-drop-not-concurrent",
        "DROP INDEX lead_email",
        "DROP INDEX CONCURRENTLY lead_email",
    ),
    (
        "index-if-not-exists",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON lead (email)",
        "CREATE INDEX CONCURRENTLY i ON lead (email)",
    ),
    (
        "reindex-not-concurrent",
        "REINDEX TABLE lead",
        "REINDEX TABLE CONCURRENTLY lead",
    ),
    (
        "concurrent-not-alone",
        "SELECT 1; DROP INDEX CONCURRENTLY i",
        "DROP INDEX CONCURRENTLY i; -- alone",
    ),
    (
        "volatile-default",
        "ALTER TABLE lead ADD id uuid DEFAULT gen_random_uuid()",
        "ALTER TABLE lead ADD at timestamptz NOT NULL DEFAULT now()",
    ),
    (
        "volatile-default",
        "ALTER TABLE lead ADD COLUMN a float DEFAULT 1 + random() NOT NULL",
        "ALTER TABLE lead ADD COLUMN a numeric(10, 2) DEFAULT '1'::numeric(10, 2) NOT NULL",
    ),
    (
        "volatile-default",
        "ALTER TABLE lead ADD a int DEFAULT nextval('s'), ADD b int",
        "ALTER TABLE lead ALTER a SET DEFAULT random()",
    ),
    (
        "rewriting-column",
        "ALTER TABLE lead ADD COLUMN n bigserial",
        "ALTER TABLE lead ADD COLUMN n bigint",
    ),
    (
        "rewriting-column",
        "ALTER TABLE lead ADD n bigint GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE lead ADD \"identity\" bigint",
    ),
    (
        "rewriting-column",
        "ALTER TABLE lead ADD n int GENERATED ALWAYS AS (a + 1) STORED",
        "CREATE TABLE a (n int GENERATED ALWAYS AS (1) STORED)",
    ),
    (
        "not-null-without-default",
        "ALTER TABLE lead ADD COLUMN a int NOT NULL",
        "ALTER TABLE lead ADD COLUMN a int NOT NULL DEFAULT 0",
    ),
    (
        "not-null-existing",
        "ALTER TABLE lead ALTER COLUMN a SET NOT NULL",
        "ALTER TABLE lead ADD CHECK (a IS NOT NULL) NOT VALID",
    ),
    (
        "not-null-existing",
        "ALTER TABLE ONLY public.lead ALTER a SET NOT NULL",
        "ALTER TABLE lead ALTER a DROP NOT NULL",
    ),
    (
        "json-column",
        "ALTER TABLE lead ADD COLUMN a json",
        "ALTER TABLE lead ADD COLUMN a jsonb",
    ),
    (
        "rename",
        "ALTER TABLE lead RENAME COLUMN a TO b",
        "ALTER TABLE lead ADD COLUMN b int",
    ),
    (
        "rename",
        "ALTER TABLE lead RENAME a TO b",
        "ALTER TABLE lead RENAME CONSTRAINT a TO b",
    ),
    (
        "rename",
        "ALTER TABLE IF EXISTS lead RENAME TO contact",
        "ALTER INDEX a RENAME TO b",
    ),
    (
        "rename",
        "ALTER TYPE mood RENAME VALUE 'a' TO 'b'",
        "ALTER TYPE mood ADD VALUE 'rename'",
    ),
    (
        "rename",
        "ALTER TABLE lead SET SCHEMA other",
        "CREATE VIEW contact AS SELECT * FROM lead",
    ),
    (
        "type-change",
        "ALTER TABLE lead ALTER a TYPE bigint",
        "ALTER TABLE lead ADD a_wide bigint",
    ),
    (
        "type-change",
        "ALTER TABLE lead ALTER COLUMN a SET DATA TYPE text",
        "ALTER TABLE lead ADD COLUMN type text",
    ),
    (
        "foreign-key-validated",
        "ALTER TABLE lead ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES b (c)",
        "ALTER TABLE lead ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES b (c) NOT VALID",
    ),
    (
        "foreign-key-validated",
        "ALTER TABLE lead ADD a int REFERENCES b (c)",
        "ALTER TABLE lead ADD \"references\" int",
    ),
    (
        "check-validated",
        "ALTER TABLE lead ADD CHECK (a > 0)",
        "ALTER TABLE lead ADD CONSTRAINT c CHECK (a > 0) NOT VALID",
    ),
    (
        "check-validated",
        "ALTER TABLE lead ADD a int CHECK (a > 0)",
        "ALTER TABLE lead VALIDATE CONSTRAINT c",
    ),
    (
        "validate-with-add",
        "ALTER TABLE lead ADD CONSTRAINT c CHECK (a > 0) NOT VALID; ALTER TABLE lead VALIDATE CONSTRAINT c",
        "ALTER TABLE lead VALIDATE CONSTRAINT c",
    ),
    (
        "unique-without-index",
        "ALTER TABLE lead ADD CONSTRAINT u UNIQUE (a)",
        "ALTER TABLE lead ADD CONSTRAINT u UNIQUE USING INDEX i",
    ),
    (
        "unique-without-index",
        "ALTER TABLE lead ADD PRIMARY KEY (a)",
        "ALTER TABLE lead ADD PRIMARY KEY USING INDEX i",
    ),
    (
        "exclusion-constraint",
        "ALTER TABLE lead ADD CONSTRAINT x EXCLUDE USING gist (a WITH &&)",
        "CREATE TABLE a (b int, EXCLUDE USING gist (b WITH =))",
    ),
    (
        "drop-in-expand",
        "DROP TABLE lead",
        "CREATE TABLE a (b int); DROP TABLE a",
    ),
    (
        "drop-in-expand",
        "CREATE TABLE a (b int); DROP TABLE a, lead",
        "SELECT 'DROP TABLE lead'",
    ),
    (
        "drop-in-expand",
        "ALTER TABLE lead DROP COLUMN a",
        "ALTER TABLE lead DROP CONSTRAINT a",
    ),
    (
        "drop-in-expand",
        "DROP FUNCTION f(int)",
        "CREATE OR REPLACE FUNCTION f() RETURNS void LANGUAGE sql AS $$ DROP TABLE lead $$",
    ),
    (
        "drop-in-expand",
        "DO $$ BEGIN IF true THEN ALTER TABLE lead DROP a; END IF; END $$",
        "DO $$ BEGIN RAISE NOTICE 'DROP TABLE a'; END $$",
    ),
    (
        "default-drop-in-expand",
        "ALTER TABLE lead ALTER a DROP DEFAULT",
        "ALTER TABLE lead ALTER a SET DEFAULT 1",
    ),
    (
        "truncate-in-expand",
        "TRUNCATE lead",
        "CREATE TABLE a (b int); TRUNCATE TABLE ONLY a",
    ),
    (
        "drop-cascade",
        "DROP VIEW a CASCADE",
        "ALTER TABLE lead ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES b ON DELETE CASCADE NOT VALID",
    ),
    ("exclusive-rewrite", "VACUUM FULL lead", "VACUUM lead"),
    (
        "exclusive-rewrite",
        "REFRESH MATERIALIZED VIEW a",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY a",
    ),
    (
        "exclusive-rewrite",
        "ALTER TABLE lead SET TABLESPACE a",
        "ALTER TABLE lead SET (fillfactor = 70)",
    ),
    (
        "exclusive-rewrite",
        "CLUSTER lead USING i",
        "SELECT cluster FROM a",
    ),
    ("lock-table", "LOCK TABLE lead", "SELECT 1 FROM lock"),
    (
        "write-with-ddl",
        "ALTER TABLE lead ADD a int; UPDATE lead SET a = 1 WHERE b = 2",
        "UPDATE lead SET a = 1 WHERE b = 2",
    ),
    (
        "write-unbounded",
        "DELETE FROM lead",
        "CREATE TABLE a (b int); UPDATE a SET b = 1",
    ),
    (
        "transaction-control",
        "BEGIN; SELECT 1; COMMIT",
        "SELECT 'BEGIN'",
    ),
    (
        "timeout-override",
        "SET LOCAL lock_timeout = 0",
        "SET search_path TO a",
    ),
    (
        "dynamic-sql",
        "DO $$ BEGIN EXECUTE 'DROP ' || x; END $$",
        "DO $$ DECLARE a int; BEGIN a := 1; END $$",
    ),
    ("unterminated", "SELECT 'a", "SELECT 'a'"),
    (
        "waiver-malformed",
        "-- hub-lint: allow lock-table\nLOCK lead",
        "-- hub-lint: allow lock-table: before the first tenant\nLOCK lead",
    ),
    (
        "waiver-malformed",
        "-- hub-lint: allow lock-tables: a typo\nLOCK lead",
        "LOCK lead -- hub-lint: allow lock-table: a reason: with a colon",
    ),
    (
        "waiver-unused",
        "-- hub-lint: allow lock-table: a reason\n\nSELECT 1",
        "-- hub-lint is a tool\nSELECT 1",
    ),
];

fn found(sql: &str, kind: Kind) -> Vec<&'static str> {
    lint(sql, kind).iter().map(|finding| finding.rule).collect()
}

#[test]
fn each_bad_example_is_found_and_each_good_one_passes() {
    for (rule, bad, good) in EXAMPLES {
        // A contract step may drop; everything else is asked of both kinds alike.
        let of_bad = found(bad, Kind::Expand);
        assert!(of_bad.contains(rule), "{rule} is not in {of_bad:?}: {bad}");
        assert_eq!(found(good, Kind::Expand), [""; 0], "{good}");
    }
}

#[test]
fn each_rule_has_an_example() {
    for rule in RULES {
        assert!(
            EXAMPLES.iter().any(|(name, ..)| *name == rule.name),
            "{} has none",
            rule.name
        );
    }
}

#[test]
fn a_contract_step_may_take_away() {
    for sql in [
        "DROP TABLE lead",
        "ALTER TABLE lead DROP COLUMN a",
        "ALTER TABLE lead ALTER a DROP DEFAULT",
        "TRUNCATE lead",
    ] {
        assert_eq!(found(sql, Kind::Contract), [""; 0], "{sql}");
    }
    assert_eq!(
        found("ALTER TABLE lead RENAME TO contact", Kind::Contract),
        ["rename"]
    );
    assert_eq!(
        found("DROP TABLE lead CASCADE", Kind::Contract),
        ["drop-cascade"]
    );
}

#[test]
fn each_action_of_a_statement_is_looked_at_with_its_line() {
    let sql = "ALTER TABLE lead\n  ADD a numeric(1, 2),\n  DROP b,\n  ALTER c TYPE int USING (c::int),\n  ADD CHECK (d IN (1, 2));";
    let findings = lint(sql, Kind::Expand);
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| (finding.line, finding.rule))
        .collect();
    assert_eq!(
        findings,
        [
            (3, "drop-in-expand"),
            (4, "type-change"),
            (5, "check-validated")
        ]
    );
}

#[test]
fn lines_inside_of_a_block_are_lines_of_the_file() {
    let findings = lint(
        "SELECT 1;\nDO $$\nBEGIN\n  LOCK lead;\nEND $$;",
        Kind::Expand,
    );
    assert_eq!((findings[0].line, findings[0].rule), (4, "lock-table"));
}

#[test]
fn a_waiver_speaks_of_one_line_and_the_rules_it_names() {
    let sql = "-- hub-lint: allow drop-in-expand, rename: both unused since March\n\
               ALTER TABLE lead DROP a, ALTER b TYPE int;\n\
               ALTER TABLE lead DROP c;";
    let findings = lint(sql, Kind::Expand);
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| (finding.line, finding.rule))
        .collect();
    assert_eq!(findings, [(2, "type-change"), (3, "drop-in-expand")]);
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "create", "table", "index", "concurrently", "on", "alter", "drop", "add", "column",
                "if", "not", "exists", "default", "(", ")", ",", ";", ".", "null", "a", "'x'", "do",
                "$$ begin drop table a; end $$", "check", "constraint", "only", "set", "type", "*",
                "begin", "atomic", "end", "rename", "to", "\n", "-- hub-lint: allow rename: x\n",
            ]),
            0..25,
        )
    ) {
        lint(&words.join(" "), Kind::Expand);
    }
}
