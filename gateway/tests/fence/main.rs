//! Rollouts and migrations hold each other back: a real gateway, hubctl, and a database.

mod colours;
mod documents;
mod live;
mod postgres;
mod runs;
mod site;
mod start;
mod words;
