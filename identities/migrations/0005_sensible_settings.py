"""What a bot's settings may be, by the database too. Numbers out of bounds that are there stay until they are changed.

An allowlist of nobody let its bot reach its provider only, and is called so from now on.
"""

import django.contrib.postgres.fields
import identities.models
import identities.validators
import pgtrigger.compiler
import pgtrigger.migrations
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('identities', '0004_walls_and_mcp_servers'),
    ]

    operations = [
        migrations.AlterField(
            model_name='identity',
            name='allowed_hosts',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=255, validators=[identities.validators.validate_host]), blank=True, default=list, help_text='for the network policy “allowlist”: api.example.com, *.example.com, 10.0.0.5:8443', size=None, validators=[identities.validators.validate_hosts]),
        ),
        migrations.AlterField(
            model_name='identity',
            name='concurrency',
            field=models.PositiveIntegerField(default=4, validators=[identities.validators.Sensible('concurrency')]),
        ),
        migrations.AlterField(
            model_name='identity',
            name='max_megabytes',
            field=models.PositiveIntegerField(default=2048, help_text='memory of one turn with everything it starts, at least 512; 0: no limit', validators=[identities.validators.Sensible('max_megabytes')]),
        ),
        migrations.AlterField(
            model_name='identity',
            name='max_minutes',
            field=models.PositiveIntegerField(default=15, validators=[identities.validators.Sensible('max_minutes')]),
        ),
        migrations.AlterField(
            model_name='identity',
            name='max_tool_calls',
            field=models.PositiveIntegerField(default=100, help_text='of one turn; 0: it uses no tools', validators=[identities.validators.Sensible('max_tool_calls')]),
        ),
        migrations.AlterField(
            model_name='identity',
            name='max_turns',
            field=models.PositiveIntegerField(default=30, validators=[identities.validators.Sensible('max_turns')]),
        ),
        migrations.AlterField(
            model_name='identity',
            name='prewarmed',
            field=models.PositiveSmallIntegerField(default=0, help_text='processes kept ready for first turns, in each worker that it is busy in (some 280 MB each)', validators=[identities.validators.Sensible('prewarmed')]),
        ),
        migrations.AlterField(
            model_name='identity',
            name='provider_chain',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=20), default=identities.models.default_chain, size=None, validators=[identities.validators.validate_chain]),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='identity',
            trigger=pgtrigger.compiler.Trigger(name='sensible_numbers', sql=pgtrigger.compiler.UpsertTriggerSql(func="\n    IF NOT (NEW.max_turns BETWEEN 1 AND 1000) AND (TG_OP = 'INSERT' OR NEW.max_turns IS DISTINCT FROM OLD.max_turns) THEN\n        RAISE EXCEPTION 'identity_sensible_max_turns: % is out of bounds', NEW.max_turns USING ERRCODE = 'check_violation';\n    END IF;\n    IF NOT (NEW.max_minutes BETWEEN 1 AND 1440) AND (TG_OP = 'INSERT' OR NEW.max_minutes IS DISTINCT FROM OLD.max_minutes) THEN\n        RAISE EXCEPTION 'identity_sensible_max_minutes: % is out of bounds', NEW.max_minutes USING ERRCODE = 'check_violation';\n    END IF;\n    IF NOT (NEW.max_tool_calls BETWEEN 1 AND 10000 OR NEW.max_tool_calls = 0) AND (TG_OP = 'INSERT' OR NEW.max_tool_calls IS DISTINCT FROM OLD.max_tool_calls) THEN\n        RAISE EXCEPTION 'identity_sensible_max_tool_calls: % is out of bounds', NEW.max_tool_calls USING ERRCODE = 'check_violation';\n    END IF;\n    IF NOT (NEW.max_megabytes BETWEEN 512 AND 1048576 OR NEW.max_megabytes = 0) AND (TG_OP = 'INSERT' OR NEW.max_megabytes IS DISTINCT FROM OLD.max_megabytes) THEN\n        RAISE EXCEPTION 'identity_sensible_max_megabytes: % is out of bounds', NEW.max_megabytes USING ERRCODE = 'check_violation';\n    END IF;\n    IF NOT (NEW.concurrency BETWEEN 1 AND 100) AND (TG_OP = 'INSERT' OR NEW.concurrency IS DISTINCT FROM OLD.concurrency) THEN\n        RAISE EXCEPTION 'identity_sensible_concurrency: % is out of bounds', NEW.concurrency USING ERRCODE = 'check_violation';\n    END IF;\n    IF NOT (NEW.prewarmed BETWEEN 1 AND 10 OR NEW.prewarmed = 0) AND (TG_OP = 'INSERT' OR NEW.prewarmed IS DISTINCT FROM OLD.prewarmed) THEN\n        RAISE EXCEPTION 'identity_sensible_prewarmed: % is out of bounds', NEW.prewarmed USING ERRCODE = 'check_violation';\n    END IF;\n    RETURN NEW;\n", hash='e4f9e44246857027c6ed2dcea6d67c95ef100c6b', operation='INSERT OR UPDATE OF "max_turns", "max_minutes", "max_tool_calls", "max_megabytes", "concurrency", "prewarmed"', pgid='pgtrigger_sensible_numbers_4e0c9', table='identities_identity', when='BEFORE')),
        ),
        migrations.RunSQL(
            "UPDATE identities_identity SET network = 'provider' WHERE network = 'allowlist' AND cardinality(allowed_hosts) = 0",
            migrations.RunSQL.noop,
        ),
        migrations.AddConstraint(
            model_name='identity',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('network', 'allowlist'), _negated=True), ('allowed_hosts__len__gte', 1), _connector='OR'), name='identity_allowlist_lists_somebody'),
        ),
    ]
