"""Sums of what those have used who have limits already, since the earliest window that runs now.

The profiles are updated first: who charges waits for them until the sums are there.
"""

from django.db import migrations

SINCE = """
    UPDATE usage_chargingprofile AS profile
       SET limited_since = LEAST(date_trunc('month', now() AT TIME ZONE 'Asia/Shanghai'),
                                 date_trunc('week', now() AT TIME ZONE 'Asia/Shanghai'))::date
     WHERE EXISTS (SELECT 1 FROM usage_usagelimit AS rule
                    WHERE rule.subscriber_id = profile.subscriber_id AND rule.unit = 'mt')
"""

SUM_UP = """
    INSERT INTO usage_limitusage (subscriber_id, api_key_id, day, mt)
    SELECT used.subscriber_id, counted.api_key_id,
           (used.occurred_at AT TIME ZONE 'Asia/Shanghai')::date, SUM(used.mt)
      FROM usage_chargingprofile AS profile
     CROSS JOIN LATERAL (
            SELECT event.subscriber_id, event.api_key_id, event.occurred_at, event.mt
              FROM usage_usageevent AS event
             WHERE event.subscriber_id = profile.subscriber_id
               AND event.occurred_at
                   >= profile.limited_since::timestamp AT TIME ZONE 'Asia/Shanghai'
             UNION ALL
            SELECT event.subscriber_id, event.api_key_id, event.occurred_at, amendment.mt
              FROM usage_amendment AS amendment
              JOIN usage_usageevent AS event
                ON event.subscriber_id = amendment.subscriber_id
               AND event.occurred_at = amendment.occurred_at
               AND event.id = amendment.event_id
             WHERE amendment.subscriber_id = profile.subscriber_id
               AND amendment.occurred_at
                   >= profile.limited_since::timestamp AT TIME ZONE 'Asia/Shanghai') AS used
     CROSS JOIN LATERAL unnest(ARRAY[0, used.api_key_id]) AS counted (api_key_id)
     WHERE profile.limited_since IS NOT NULL AND counted.api_key_id IS NOT NULL
     GROUP BY 1, 2, 3
"""


class Migration(migrations.Migration):
    dependencies = [("usage", "0030_usage_counted_for_limits")]

    operations = [
        migrations.RunSQL(SINCE, migrations.RunSQL.noop),
        migrations.RunSQL(SUM_UP, "DELETE FROM usage_limitusage"),
    ]
