"""Which worker holds which process, whether it takes work, and who may take an execution first."""

import django.db.models.deletion
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('execution', '0003_breakers_and_causes'),
        ('identities', '0003_warm_workers'),
    ]

    operations = [
        migrations.CreateModel(
            name='HeldProcess',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('conversation_id', models.BigIntegerField(blank=True, help_text='empty: no conversation has it yet', null=True)),
                ('provider', models.CharField(max_length=20)),
                ('model', models.CharField(max_length=80)),
                ('session_id', models.CharField(max_length=80)),
                ('turns', models.PositiveIntegerField(default=0, help_text='turns it has answered; 0: started ahead')),
                ('pid', models.PositiveIntegerField(blank=True, null=True)),
                ('pid_started_at', models.FloatField(blank=True, help_text='seconds after boot', null=True)),
                ('megabytes', models.PositiveIntegerField(blank=True, help_text='with everything below it; empty: not weighed yet', null=True)),
                ('weighed_at', models.DateTimeField(blank=True, null=True)),
                ('began_at', models.DateTimeField()),
                ('idle_since', models.DateTimeField()),
                ('end_requested_at', models.DateTimeField(blank=True, null=True)),
                ('end_requested_by', models.CharField(blank=True, max_length=150)),
            ],
            options={
                'verbose_name_plural': 'held processes',
            },
        ),
        migrations.AddField(
            model_name='execution',
            name='preferred_worker_id',
            field=models.UUIDField(blank=True, db_default=None, help_text='may take it alone at first, since it holds the session', null=True),
        ),
        migrations.AddField(
            model_name='worker',
            name='draining_at',
            field=models.DateTimeField(blank=True, help_text='takes nothing new since; empty: takes work', null=True),
        ),
        migrations.AddField(
            model_name='worker',
            name='listens',
            field=models.BooleanField(db_default=False, default=False, help_text='reads hints that are meant for it alone'),
        ),
        migrations.AddField(
            model_name='worker',
            name='version',
            field=models.CharField(blank=True, db_default='', max_length=40),
        ),
        migrations.AddIndex(
            model_name='execution',
            index=models.Index(condition=models.Q(('pid__isnull', False), ('process_gone_at', None)), fields=['pid'], name='execution_not_seen_gone'),
        ),
        migrations.AddField(
            model_name='heldprocess',
            name='identity',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='held_processes', to='identities.identity'),
        ),
        migrations.AddField(
            model_name='heldprocess',
            name='worker',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='held', to='execution.worker'),
        ),
        migrations.AddIndex(
            model_name='heldprocess',
            index=models.Index(fields=['session_id'], name='held_session'),
        ),
    ]
