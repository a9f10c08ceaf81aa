"""The few words all apps share: who acts, what happened, how a state moves, and how to call on others later."""
