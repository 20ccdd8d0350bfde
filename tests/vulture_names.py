"""Names that nothing in the package refers to, and who does: `vulture` reads this file as if it used them."""

# ruff: noqa: B018, F821

# Python
_.__getattr__
_.__dir__
_.__init_subclass__

# cli.main, by the words of a command line
_.standalone
_.scheduler
_.api_server

# parameters of a statement, by `_asdict`
_.up_to

# logging.Formatter
_.converter
_.default_time_format
_.default_msec_format

# io.RawIOBase
_.seekable
_.readall
_.readinto

# celery.worker.state
_.should_stop

# zipfile.ZipInfo
_.external_attr

# http.server
_.do_POST
_.do_PUT
_.do_HEAD
_.do_DELETE
_.do_GET
_.do_PATCH
_.allow_reuse_address
_.request_queue_size
_.process_request
_.shutdown_request
_.daemon_threads
_.handle_error
_.protocol_version
_.close_connection
_.log_message

# SQLAlchemy, the SQLite driver
_.impl
_.cache_ok
_.process_bind_param
_.process_result_value
_.mappings
_.isolation_level

# psycopg's connection of libpq
_.nonblocking

# asyncssh's servers and sessions
_.password_auth_supported
_.validate_password
_.session_requested
_.connection_made
_.subsystem_requested
_.session_started
_.data_received
_.eof_received
_.connection_lost

# Pydantic
_.model_config

# scikit-learn
_.classes_
_.n_features_in_

# what templates and functions of users read in a context
_.dag_run
_.task_instance
_.task_instance_key_str
_.ds_nodash
_.ts
_.ts_nodash
_.ts_nodash_with_tz
_.ds_add
_.ds_format

# what pipelines of users call on DAGs, operators and decorated functions
_.task_group_dict
_.topological_sort
_.override
_.expand_kwargs
_.upstream_task_ids
_.downstream_task_ids
_.TimeDeltaTrigger

# called by name: the method that a deferral goes on with
_.execute_complete

# read by name: a class's own attribute
_._accepted

# keys of documents that are shown or judged as JSON
_.execution_timeout_seconds
_.doc

# the public test kit: a clock that is set by hand, where the mirror put something, who asked for a run
_.ManualClock
_.advance
_.chain_run_id
_.TEST

# fields of answers that only JSON shows
_.price_a_day
_.requests_by_kind
_.from_id
_.meaning
_.catches_up_in_seconds

# overridden in a class of Uvicorn's, and read by Starlette
_.main_loop
_.capture_signals
_.redirect_slashes

# what a supervisor of an attempt on another host uses
_.AttemptSession
_.tls_ca

# Celery's configuration
_.task_queues

# what a Ray job needs, handed on by their names
_.num_cpus
_.num_gpus

# looked up by its name: a kind of executor
_.WorkloadExecutor
_.CeleryExecutor
_.RayExecutor

# called by executors that find out later that they could not deliver
_.not_delivered

# what the templates of the pages read, and their scripts
_.metric_names
_.x_ticks
_.y_ticks
_.lowest
_.highest
_.earlier_marks
_.waited_seconds
_.help
_.choices
_.wait_x
_.node_width
_.node_height
_.html
_.picture
_.learnt_by_chain


# looked up by its name: a kind of executor
_.KubernetesExecutor

# called by lightkube's connections
_.sync_auth_flow
# what a training function reads a split by
_.read_pandas

# what programs read of a run
_.start_date
_.end_date
