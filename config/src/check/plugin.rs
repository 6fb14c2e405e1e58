//! `[[plugin]]`: settings go to the catalog, which builds the instance.

use super::files;
use super::place::{At, shorten};
use super::scope::Scope;
use super::suggest;
use crate::runtime::PluginMark;
use crate::{BuiltPlugin, PluginInstance, Secret, file};
use sha2::{Digest, Sha256};

pub(crate) fn plugins(
    scope: &mut Scope<'_>,
    files: &[file::Plugin],
) -> (Vec<Option<PluginInstance>>, Vec<PluginMark>) {
    let section = At::ROOT.key("plugin");
    let mut plugins = Vec::new();
    let mut marks = Vec::new();
    for (i, file) in files.iter().enumerate() {
        let built = plugin(scope, &section.index(i), file);
        if let Some(built) = &built {
            marks.push(PluginMark {
                name: file.name.clone(),
                kind: file.kind.clone(),
                mark: mark(file, built),
            });
        }
        plugins.push(built.map(|built| PluginInstance {
            name: file.name.as_str().into(),
            kind: file.kind.as_str().into(),
            built,
        }));
    }
    (plugins, marks)
}

fn plugin(scope: &mut Scope<'_>, at: &At<'_>, file: &file::Plugin) -> Option<BuiltPlugin> {
    let catalog = scope.catalog;
    let kinds = catalog.kinds();
    if !kinds.contains(&file.kind.as_str()) {
        let advice = suggest::known(&file.kind, kinds);
        let message = format!("unknown kind {:?}{advice}", shorten(&file.kind));
        scope.problem(&at.key("kind"), message);
        return None;
    }
    match catalog.build(&file.kind, &file.name, &file.config) {
        Ok(built) => {
            for path in &built.files {
                scope.watch(path.clone());
            }
            Some(built)
        }
        Err(problems) => {
            let config_at = at.key("config");
            for problem in problems {
                at_path(&config_at, &problem.at, &mut |at| {
                    scope.problem(at, problem.message.clone());
                });
            }
            None
        }
    }
}

/// Calls `then` with the key path that `text` spells inside `at`: `keys[0].algorithm`.
fn at_path(at: &At<'_>, text: &str, then: &mut dyn FnMut(&At<'_>)) {
    let text = text.trim_start_matches('.');
    if text.is_empty() {
        return then(at);
    }
    if let Some((index, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        && let Ok(index) = index.parse()
    {
        return at_path(&at.index(index), rest, then);
    }
    let mut rest = text.char_indices().skip(1);
    let end = rest
        .find(|(_, c)| matches!(c, '.' | '['))
        .map_or(text.len(), |(end, _)| end);
    at_path(&at.key(&text[..end]), &text[end..], then);
}

/// What the instance was built from: when this is the same, so is the plugin.
fn mark(file: &file::Plugin, built: &BuiltPlugin) -> Secret {
    let mut digest = Sha256::new();
    let settings = serde_json::to_vec(&file.config).expect("a JSON map is always JSON");
    digest.update((settings.len() as u64).to_be_bytes());
    digest.update(&settings);
    for path in &built.files {
        // A file that vanished since the build counts as empty, which is a change, as it should be.
        let bytes = files::read(path, files::SMALL_FILE_BYTES_MAX).unwrap_or_default();
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(&bytes);
    }
    Secret::new(digest.finalize().to_vec())
}
