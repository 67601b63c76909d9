// Runs an output-stationary array through the cases that cases.txt lists, one line each:
//   folder N K P weight_bits weight_signed activation_bits activation_signed start_bits full_folds
// A folder holds weights.hex (n, k), activations.hex (k, p) and start.hex (n). Two files are written beside them:
//   rtl_registers.txt  one line per multiply cycle: the fold, then per PE accumulator, weight, activation, overflow
//   rtl_outputs.txt    "load multiply drain" cycles, then one line per output (n, p): n, p, accumulator, overflow events

module testbench;
    parameter ROWS = 4;
    parameter COLUMNS = 4;
    parameter WEIGHT_BITS = 9;
    parameter ACTIVATION_BITS = 9;
    parameter ACC_BITS = 32;
    parameter SATURATE = 0;
    parameter LATENCY = 1;
    parameter SHIFT = 0;
    parameter RULE = 0;
    localparam START_BITS = 64;
    localparam WORDS = 4096;

    reg clock = 0, load = 0, drain = 0;
    reg [ROWS*COLUMNS*START_BITS-1:0] starts = 0;
    reg [COLUMNS*WEIGHT_BITS-1:0] weights_in = 0;
    reg [ROWS*ACTIVATION_BITS-1:0] activations_in = 0;
    wire [ROWS*COLUMNS*WEIGHT_BITS-1:0] weights;
    wire [ROWS*COLUMNS*ACTIVATION_BITS-1:0] activations;
    wire [ROWS*COLUMNS*ACC_BITS-1:0] accumulators;
    wire [ROWS*COLUMNS-1:0] overflows;

    output_stationary_array #(
        .ROWS(ROWS), .COLUMNS(COLUMNS), .WEIGHT_BITS(WEIGHT_BITS), .ACTIVATION_BITS(ACTIVATION_BITS),
        .ACC_BITS(ACC_BITS), .START_BITS(START_BITS), .SATURATE(SATURATE), .LATENCY(LATENCY), .SHIFT(SHIFT), .RULE(RULE)
    ) array (
        .clock(clock), .load(load), .drain(drain), .starts(starts), .weights_in(weights_in),
        .activations_in(activations_in), .weights(weights), .activations(activations), .accumulators(accumulators),
        .overflows(overflows)
    );

    reg [63:0] weight_file [0:WORDS-1], activation_file [0:WORDS-1], start_file [0:WORDS-1];
    integer events [0:WORDS-1];
    reg signed [ACC_BITS-1:0] drained [0:WORDS-1];
    reg [8*64-1:0] folder;
    reg [8*96-1:0] name;
    integer cases, registers, outputs, found, N, K, P, full;
    integer weight_bits, weight_signed, activation_bits, activation_signed, start_bits;
    integer n0, p0, used_rows, used_columns, rows, columns, t, i, j, n, p, fold;
    integer multiply_cycles, drain_cycles;

    // The value of a word of a file: two's complement of some bits, or unsigned.
    function signed [63:0] value_of(input [63:0] word, input integer bits, input integer is_signed);
        if (is_signed != 0) value_of = $signed(word << (64 - bits)) >>> (64 - bits);
        else value_of = word;
    endfunction

    task tick;
        begin
            #1 clock = 1;
            #1 clock = 0;
        end
    endtask

    task count_events;
        for (i = 0; i < used_rows; i = i + 1)
            for (j = 0; j < used_columns; j = j + 1)
                if (overflows[i*COLUMNS+j]) events[(n0+j)*P+p0+i] = events[(n0+j)*P+p0+i] + 1;
    endtask

    task run_fold;
        begin
            // The start values enter at the edge before the first multiply cycle, which in a design is the one that
            // ends the last drain cycle of the fold before: it costs no cycle.
            starts = 0;
            for (i = 0; i < used_rows; i = i + 1)
                for (j = 0; j < used_columns; j = j + 1)
                    starts[(i*COLUMNS+j)*START_BITS +: START_BITS] = value_of(start_file[n0+j], start_bits, 1);
            load = 1;
            tick;
            load = 0;
            count_events;
            for (t = 0; t < K + rows + columns - 2 + LATENCY - 1; t = t + 1) begin
                activations_in = 0;
                for (i = 0; i < used_rows; i = i + 1)
                    if (t - i >= 0 && t - i < K)
                        activations_in[i*ACTIVATION_BITS +: ACTIVATION_BITS] =
                            value_of(activation_file[(t-i)*P+p0+i], activation_bits, activation_signed);
                weights_in = 0;
                for (j = 0; j < used_columns; j = j + 1)
                    if (t - j >= 0 && t - j < K)
                        weights_in[j*WEIGHT_BITS +: WEIGHT_BITS] =
                            value_of(weight_file[(n0+j)*K+t-j], weight_bits, weight_signed);
                tick;
                multiply_cycles = multiply_cycles + 1;
                count_events;
                $fwrite(registers, "%0d", fold);
                for (i = 0; i < ROWS*COLUMNS; i = i + 1)
                    $fwrite(
                        registers, " %0d %0d %0d %0d", $signed(accumulators[i*ACC_BITS +: ACC_BITS]),
                        $signed(weights[i*WEIGHT_BITS +: WEIGHT_BITS]),
                        $signed(activations[i*ACTIVATION_BITS +: ACTIVATION_BITS]), overflows[i]
                    );
                $fwrite(registers, "\n");
            end
            // Drain: what row `rows - 1` holds leaves the grid in each cycle, and all accumulators move one row down.
            for (t = 0; t < rows; t = t + 1) begin
                p = rows - 1 - t;
                for (j = 0; j < used_columns; j = j + 1)
                    if (p < used_rows) drained[(n0+j)*P+p0+p] = accumulators[((rows-1)*COLUMNS+j)*ACC_BITS +: ACC_BITS];
                drain = 1;
                tick;
                drain = 0;
                drain_cycles = drain_cycles + 1;
            end
            fold = fold + 1;
        end
    endtask

    task run_case;
        begin
            $sformat(name, "%0s/weights.hex", folder);
            $readmemh(name, weight_file, 0, N*K-1);
            $sformat(name, "%0s/activations.hex", folder);
            $readmemh(name, activation_file, 0, K*P-1);
            $sformat(name, "%0s/start.hex", folder);
            $readmemh(name, start_file, 0, N-1);
            $sformat(name, "%0s/rtl_registers.txt", folder);
            registers = $fopen(name, "w");
            $sformat(name, "%0s/rtl_outputs.txt", folder);
            outputs = $fopen(name, "w");
            for (n = 0; n < N*P; n = n + 1) events[n] = 0;
            fold = 0;
            multiply_cycles = 0;
            drain_cycles = 0;
            for (n0 = 0; n0 < N; n0 = n0 + COLUMNS)
                for (p0 = 0; p0 < P; p0 = p0 + ROWS) begin
                    used_rows = P - p0 < ROWS ? P - p0 : ROWS;
                    used_columns = N - n0 < COLUMNS ? N - n0 : COLUMNS;
                    rows = full != 0 ? ROWS : used_rows;
                    columns = full != 0 ? COLUMNS : used_columns;
                    run_fold;
                end
            $fwrite(outputs, "0 %0d %0d\n", multiply_cycles, drain_cycles);
            for (n = 0; n < N; n = n + 1)
                for (p = 0; p < P; p = p + 1)
                    $fwrite(outputs, "%0d %0d %0d %0d\n", n, p, drained[n*P+p], events[n*P+p]);
            $fclose(registers);
            $fclose(outputs);
        end
    endtask

    initial begin
        cases = $fopen("cases.txt", "r");
        found = $fscanf(
            cases, "%s %d %d %d %d %d %d %d %d %d", folder, N, K, P, weight_bits, weight_signed, activation_bits,
            activation_signed, start_bits, full
        );
        while (found == 10) begin
            run_case;
            found = $fscanf(
                cases, "%s %d %d %d %d %d %d %d %d %d", folder, N, K, P, weight_bits, weight_signed, activation_bits,
                activation_signed, start_bits, full
            );
        end
        $fclose(cases);
        $finish;
    end
endmodule
