//! `[[plugin]]`: settings go to the catalog, which builds the instance.

use super::place::{At, shorten};
use super::scope::Scope;
use super::suggest;
use crate::{BuiltPlugin, PluginInstance, file};
use std::sync::Arc;
use std::time::Duration;

/// How long a fresh process waits for what plugins need from elsewhere, so that it does not refuse good
/// requests. It goes on without: a key server that is down must not keep a gateway from starting.
const START_WAIT: Duration = Duration::from_secs(2);

/// The same at a reload, which is refused then, since what is in force has what it needs. Longer than
/// one fetch takes at most.
const RELOAD_WAIT: Duration = Duration::from_secs(6);

pub(crate) fn plugins(
    scope: &mut Scope<'_>,
    files: &[file::Plugin],
) -> Vec<Option<Arc<PluginInstance>>> {
    let section = At::ROOT.key("plugin");
    let mut plugins = Vec::with_capacity(files.len());
    for (i, file) in files.iter().enumerate() {
        let built = plugin(scope, &section.index(i), file);
        plugins.push(built.map(|built| {
            Arc::new(PluginInstance {
                name: file.name.as_str().into(),
                kind: file.kind.as_str().into(),
                built,
            })
        }));
    }
    plugins
}

/// Waits until the instances can do their work. To be called last, because what they wait for goes on
/// beside the other checks.
pub(crate) fn settle(scope: &mut Scope<'_>, plugins: &[Option<Arc<PluginInstance>>]) {
    let section = At::ROOT.key("plugin");
    let (positions, built): (Vec<usize>, Vec<&BuiltPlugin>) = plugins
        .iter()
        .enumerate()
        .filter_map(|(i, plugin)| Some((i, &plugin.as_ref()?.built)))
        .unzip();
    let at_reload = scope.running.is_some();
    let running = scope.running.map_or(&[][..], |config| &config.plugins);
    let longest = if at_reload { RELOAD_WAIT } else { START_WAIT };
    for (which, problem) in scope.catalog.settle(&built, running, longest) {
        let at = section.index(positions[which]);
        at_path(&at.key("config"), &problem.at, &mut |at| {
            if at_reload {
                scope.problem(at, problem.message.clone());
            } else {
                scope.warn(at, problem.message.clone());
            }
        });
    }
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
    let running = scope.running.and_then(|config| {
        let same = |one: &&Arc<PluginInstance>| *one.name == file.name && *one.kind == file.kind;
        config.plugins.iter().find(same).map(|one| &one.built)
    });
    match catalog.build(&file.kind, &file.name, &file.config, running) {
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
