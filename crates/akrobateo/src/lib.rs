//! The operator. Per Service: [`observe`] what is, [`decide`] what should be, [`apply`] the difference.

mod apply;
mod client;
mod decide;
mod health;
mod key;
mod observe;
mod queue;
mod reconcile;
mod run;
mod settings;

pub use run::{StartError, run};
pub use settings::Settings;
