//! The checked-in schema is the one that the code has.

#[test]
fn the_schema_file_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/schema.json");
    let on_disk = std::fs::read_to_string(path).expect("config/schema.json is checked in");
    let generated = hub_config::json_schema_text(&hub_plugins::Catalog::new(""));
    assert!(
        on_disk == generated,
        "config/schema.json is not what the code says; run `make schema` and look at the difference"
    );
}
