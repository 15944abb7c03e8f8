//! A shadow that reads the same texts.
use super::Ask;
use crate::http::{
    AppState,
    fan_out::admit,
    shadow::{Reserved, both},
};
use tokio::sync::oneshot;

impl Reserved {
    /// Lets the shadow read what `ask` says; what the real answer decided is to be told for the comparison.
    pub(in crate::http) fn read<A: Ask>(
        self,
        app: &AppState,
        ask: &A,
    ) -> oneshot::Sender<Option<Vec<String>>> {
        let (tell, told) = oneshot::channel();
        let (app, ask) = (app.clone(), ask.of_shadow(self.adapters()));
        let ended = app.shadows.ending();
        let Self { alias, place, .. } = self;
        tokio::spawn(async move {
            let _place = place;
            let answer = async {
                let _permits = admit(&app, ask.adapters()).ok()?;
                ask.answer(&app.generator).await.ok()
            };
            let Some((real, shadow)) = both(&app, &alias, ended, (told, answer)).await else {
                return;
            };
            if let (Some(real), Some(shadow)) = (real, A::decisions(&shadow)) {
                app.metrics.shadow_compared(&alias, real == shadow);
            }
        });
        tell
    }
}
