"""See `pipeline.effects`: Unit, Effect, EffectContext, Change. (Import from there; this file goes away.)"""
