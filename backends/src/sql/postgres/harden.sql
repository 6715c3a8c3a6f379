-- What every role may do by default and no service needs: run by a superuser in each service's database.
-- Functions that change the session, wait, lock, notify, signal other sessions or keep large objects.
DO $$
DECLARE f regprocedure;
BEGIN
  FOR f IN
    SELECT oid::regprocedure FROM pg_catalog.pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace
      AND (proname IN ('set_config', 'pg_notify', 'pg_sleep', 'pg_sleep_for', 'pg_sleep_until', 'pg_cancel_backend',
                       'pg_terminate_backend', 'pg_export_snapshot', 'pg_logical_emit_message', 'pg_stat_get_activity',
                       'pg_listening_channels', 'pg_get_userbyid', 'pg_database_size')
           OR proname LIKE 'pg\_advisory%' OR proname LIKE 'pg\_try\_advisory%' OR proname LIKE 'lo\_%'
           OR proname IN ('loread', 'lowrite'))
      AND pg_catalog.has_function_privilege('public', oid, 'EXECUTE')
  LOOP
    EXECUTE pg_catalog.format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
  END LOOP;
END $$;
-- Tables that name other services, show other sessions, or change settings.
DO $$
DECLARE t regclass;
BEGIN
  FOR t IN
    SELECT oid::regclass FROM pg_catalog.pg_class
    WHERE relnamespace = 'pg_catalog'::regnamespace
      AND relname IN ('pg_database', 'pg_roles', 'pg_user', 'pg_group', 'pg_auth_members', 'pg_db_role_setting',
                      'pg_shdescription', 'pg_stat_activity', 'pg_stat_database', 'pg_stat_replication', 'pg_settings',
                      'pg_tablespace', 'pg_locks', 'pg_prepared_xacts')
      AND (pg_catalog.has_table_privilege('public', oid, 'SELECT') OR pg_catalog.has_table_privilege('public', oid, 'UPDATE'))
  LOOP
    EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM PUBLIC', t);
  END LOOP;
END $$;
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
